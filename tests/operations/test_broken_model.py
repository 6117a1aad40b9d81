"""A model type whose code is broken stops no other one."""

import pytest
from fastapi.testclient import TestClient

from flows.ingest import ingest
from flows.retrain import retrain
from flows.tidy import tidy
from kreislauf.settings import settings
from models import spec
from serving.app import create

pytestmark = pytest.mark.usefixtures("prefect_harness", "mlflow_store", "triton")


def test_a_broken_model_type_stops_neither_the_gateway_nor_tidy(tiny, other_models, orders, caplog):
    ingest(orders(0, 20, threshold=50), tiny)
    retrain(tiny)
    (other_models / "broken").mkdir()
    (other_models / "broken" / "__init__.py").write_text("import no_such_library\n")

    with TestClient(create(settings())) as gateway:
        answer = gateway.post("/v1/tiny/predict", json={"price": 60.0}).json()
        assert answer["variant"] == "champion", answer
        refusal = gateway.post("/v1/broken/predict", json={})
        assert refusal.status_code == 503
        assert "models/broken cannot be loaded: ModuleNotFoundError" in refusal.json()["detail"]
        assert gateway.post("/v1/other/predict", json={}).status_code == 404
    assert "models/broken cannot be loaded and does not answer" in caplog.text

    assert [report.table for report in tidy() if report.table == "orders"] == ["orders"]
    with pytest.raises(ModuleNotFoundError):
        spec.load("broken")

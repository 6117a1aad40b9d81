"""Runs that lost their process are noticed, and begun anew."""

from prefect import flow, get_run_logger

from tasks.recover import end_silent_runs, restore_ended_runs, take_up_crashed_runs


@flow
def recover() -> list[str]:
    """Look after the runs of all deployments of Kreislauf on this Prefect server.

    - A run without a heartbeat for 90 seconds, and then for 45 more in which this flow listens, has
      lost its process: it is crashed. So is one that was handed to a worker five minutes ago and
      has not begun. One that was to be cancelled is cancelled.
    - A run that completed, failed or was cancelled, and was called crashed later, gets its state
      back.
    - A crashed run of the last day is taken up by a new run of the same deployment with the same
      parameters, three times at most, unless the deployment is paused. A new one, because the
      process of the old one may live on, and what Prefect hears from it later must not end the run
      that has taken its place. Every step goes on where the old one was.

    To run it again is harmless: a crashed run is taken up once.

    Returns:
        What was done, in a sentence a run.
    """
    done = [*end_silent_runs(), *restore_ended_runs(), *take_up_crashed_runs()]
    for sentence in done:
        get_run_logger().info(sentence)
    return done

"""The library under flows and tasks: a folder for each organ of the loop. Knows neither flows nor
tasks."""

"""Methods x data sets x seeds -> one table with intervals and cost; see `runner.run`."""

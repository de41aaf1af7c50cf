"""Methods for discounted problems: generators that improve the value of a task."""

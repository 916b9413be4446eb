"""Recording a training while it runs: a compact trajectory on disk, live numbers for whoever watches."""

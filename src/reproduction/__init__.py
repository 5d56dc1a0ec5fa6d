"""The paper: its experiments, the pipeline that runs them, what is said of their results, and the command."""

"""What a reader looks at: summaries, figures and the report, from the files of a workdir alone; never imports jax."""

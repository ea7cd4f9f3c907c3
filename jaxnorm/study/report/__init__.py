"""What a reader looks at: tables, figures and the page of a study, made from its files alone; never imports jax."""

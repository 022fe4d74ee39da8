"""What tests can see: `mutants` makes a reference wrong, `examine` counts kills."""

"""What tests can see: `faults` and `mutants` make a reference wrong, `examine` counts kills."""

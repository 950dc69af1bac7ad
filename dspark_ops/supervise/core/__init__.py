"""What the supervisor of the pair decides: pure, standard library only. `model` has the words, `machine` the step."""

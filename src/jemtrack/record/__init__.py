"""What a training writes as an output of its stage: the record and the history."""

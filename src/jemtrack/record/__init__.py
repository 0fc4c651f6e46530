"""What a training writes as outputs of its stage: the record and the history."""

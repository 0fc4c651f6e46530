"""What a model of the family is worth, by a judge that no training has seen."""

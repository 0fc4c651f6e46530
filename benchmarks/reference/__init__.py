"""The reference: steps as in the published JEM scripts, in fp32, without optimisation."""

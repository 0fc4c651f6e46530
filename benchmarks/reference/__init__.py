"""Steps written plainly, as the published JEM scripts do them: fp32, nothing made faster."""

"""The networks of joint energy-based models, and the files that they are saved in."""

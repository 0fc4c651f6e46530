"""The networks of joint energy models, and their files."""

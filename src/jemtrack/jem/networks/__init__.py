"""The networks of joint energy models, and the files that they are saved in."""

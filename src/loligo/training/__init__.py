"""Train a method on normal images: the loop, what moves it, and how processes agree."""

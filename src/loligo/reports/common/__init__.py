"""What the pages share: templates, charts, pictures, numbers as text."""

"""What a person sees, driven through a real browser against the site as it is really served."""

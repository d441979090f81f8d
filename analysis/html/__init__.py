"""From results to a page that answers to the mouse."""

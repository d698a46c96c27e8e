"""Random views of images: what is drawn, and rendering it."""

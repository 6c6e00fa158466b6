"""An experiment folder as a page: score files, logs and settings go in, one HTML file with figures comes out."""

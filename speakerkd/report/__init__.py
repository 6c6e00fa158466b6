"""An experiment folder as a page: in go score files, logs and settings, out come one HTML file and figures."""

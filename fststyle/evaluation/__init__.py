"""Results as pages: pictures, curves and tables in one self-contained HTML file."""

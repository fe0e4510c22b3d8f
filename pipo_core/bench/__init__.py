"""Speed: latency of several methods side by side, and the plots of reports."""

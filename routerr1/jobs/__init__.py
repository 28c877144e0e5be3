"""What every long job needs: progress on the terminal, and a place for broken rows."""

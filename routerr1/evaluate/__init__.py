"""Any router on any questions: rows, intervals, paired differences."""

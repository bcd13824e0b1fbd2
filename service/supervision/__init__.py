"""Model servers as programs of this machine: started, watched, started again, drained, stopped."""

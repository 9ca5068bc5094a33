"""Where the events of jobs go."""

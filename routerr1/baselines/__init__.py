"""Every router the paper compares with; each plays a question to a Trajectory, so one code scores all."""

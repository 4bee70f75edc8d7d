"""What every program needs and no experiment knows: errors, files, devices, processes, metrics."""

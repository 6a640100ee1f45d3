"""Other projects' control tasks on our solver, with their own definitions of actions, observations and rewards."""

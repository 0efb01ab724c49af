package state

// NewTask is an Opener for examples.
func NewTask() Opener { return newTask() }

package moldau

import (
	"errors"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/worker"
)

// What an App's errors are; test with errors.Is. Each says what, where and what to do.
var (
	// ErrConfig: New was given something that cannot be right. The message names every mistake.
	ErrConfig = errors.New("the configuration has mistakes")
	// ErrClosed: the App was closed, or has run already.
	ErrClosed = errors.New("the application is closed")
	// ErrStateInUse: another process has the state directory.
	ErrStateInUse = worker.ErrInUse
	// ErrStateFormat: the state directory was written by a version that this one does not know.
	ErrStateFormat = worker.ErrFormat
	// ErrOtherApp: the state directory belongs to another application.
	ErrOtherApp = worker.ErrOtherApp
	// ErrTopics: the cluster's topics are not what the application needs: one is missing, was made again, or has the wrong
	// number of partitions.
	ErrTopics = worker.ErrTopics
	// ErrTopology: stores or internal topics have changed in a way that is not safe since the application last ran. The message
	// says how, and the way out.
	ErrTopology = worker.ErrTopology
	// ErrStopApplication: another process of the application has had all of them stopped; the message has its reason.
	ErrStopApplication = worker.ErrStopApplication
	// ErrMissingTopic: a topic does not exist.
	ErrMissingTopic = cluster.ErrMissingTopic
	// ErrOffsets: records that were never processed are gone.
	ErrOffsets = worker.ErrOffsets
	// ErrFenced: another process acts under this one's identity.
	ErrFenced = cluster.ErrFenced
	// ErrTooLarge: a record exceeds what the cluster accepts.
	ErrTooLarge = cluster.ErrTooLarge
	// ErrUnauthorized: the cluster refuses what was asked.
	ErrUnauthorized = cluster.ErrUnauthorized
	// ErrStopTimeout: a stop took longer than Config.StopTimeout.
	ErrStopTimeout = worker.ErrStopTimeout
	// ErrNotHere: another process, or none just now, holds what a query asks for. The error is a *NotHere, which names the owner.
	ErrNotHere = worker.ErrNotHere
	// ErrNoStore: the topology has no such store.
	ErrNoStore = worker.ErrNoStore
)

// NotHere is the error of a query for a key that this process does not hold. It is an ErrNotHere.
//
//	type NotHere struct {
//		Task  string // that has the key, as in "0_3"
//		Owner string // the address that its process advertises (Config.Advertise); "" if it is not known
//	}
type NotHere = worker.NotHere

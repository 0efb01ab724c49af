// Command judges has Kafka Streams' own system tests judge an application of ours: Java's driver writes the input of its
// SmokeTest or RelationalSmokeTest, two processes of the application work on it while they are killed with SIGKILL at random
// moments and started again, and Java's driver judges what came out. With -client java the application is Java's own,
// and what is judged is the broker.
//
//	judges -java 'java -cp DIR/*:CLASSES' [flags]            one trial; scripts/judges/run.sh fetches DIR and knows the trials
//	judges -application -brokers HOST:PORT -state DIR [flags]   the application, until it is stopped
//
// It exits with 0 if the judge's verdict is the one that was expected, with 1 if not, with 2 if there is none.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	topology  string // smoke or relational
	guarantee string
	client    string // go or java
	protocol  string // of Java's group: classic or streams
	wrong     bool

	brokers string // "": the bundled broker, by moldau
	moldau  string // the program
	java    string // a command that runs Java with the judge's classes
	kills   int
	broker  int // kills of the broker
	first   int // keys, or articles
	second  int // records of each key, or comments
	seconds int
	seed    uint64
	dir     string // of state and logs
	timeout time.Duration

	application bool
	state       string
}

const (
	exactlyOnce = "exactly-once"
	atLeastOnce = "at-least-once"
)

func main() {
	var o options
	flag.StringVar(&o.topology, "topology", "smoke", "smoke or relational")
	flag.StringVar(&o.guarantee, "guarantee", exactlyOnce, "the application's, by which it is judged: exactly-once or at-least-once")
	flag.StringVar(&o.client, "client", "go", "the application: go, ours, or java, Kafka Streams'")
	flag.StringVar(&o.protocol, "protocol", "classic", "of the group of Java's application: classic or streams (KIP-1071)")
	flag.BoolVar(&o.wrong, "wrong", false, "seed a mistake into our application; the judge must find it")
	flag.StringVar(&o.brokers, "brokers", "", "addresses of a cluster without topics; default: a bundled broker, started with -moldau")
	flag.StringVar(&o.moldau, "moldau", "bin/moldau", "the moldau program")
	flag.StringVar(&o.java, "java", "", "the command that runs Java with scripts/judges/Judge.java and Kafka Streams' test jars in its class path")
	flag.IntVar(&o.kills, "kills", 6, "how many times processes of the application are killed")
	flag.IntVar(&o.broker, "kill-broker", 0, "how many times the bundled broker is killed as well")
	flag.IntVar(&o.first, "first", 10, "keys, or articles")
	flag.IntVar(&o.second, "second", 300, "records of each key, at least 100, or comments")
	flag.IntVar(&o.seconds, "seconds", 15, "over which the judge writes them")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the moments of killing")
	flag.StringVar(&o.dir, "dir", "", "directory for state and logs; default: a new one, removed if the verdict is as expected")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "give up after this long")
	flag.BoolVar(&o.application, "application", false, "be our application")
	flag.StringVar(&o.state, "state", "", "with -application: its state directory")
	flag.Parse()
	if problem := o.problem(); problem != "" {
		fmt.Fprintf(os.Stderr, "judges: %s\n", problem)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.application {
		if err := o.apply(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "judges: %v\n", err)
			os.Exit(2)
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err := o.try(ctx)
	switch {
	case errors.Is(err, errVerdict):
		fmt.Println(err)
		os.Exit(1)
	case err != nil:
		fmt.Fprintf(os.Stderr, "judges: %v\n", err)
		os.Exit(2)
	}
}

func (o options) problem() string {
	switch {
	case flag.NArg() > 0:
		return fmt.Sprintf("unknown argument %q; see -help", flag.Arg(0))
	case o.topology != "smoke" && o.topology != "relational":
		return fmt.Sprintf("-topology %q: it is smoke or relational", o.topology)
	case o.guarantee != exactlyOnce && o.guarantee != atLeastOnce:
		return fmt.Sprintf("-guarantee %q: it is %s or %s", o.guarantee, exactlyOnce, atLeastOnce)
	case o.client != "go" && o.client != "java":
		return fmt.Sprintf("-client %q: it is go or java", o.client)
	case o.protocol != "classic" && (o.protocol != "streams" || o.client != "java"):
		return fmt.Sprintf("-protocol %q: it is classic or, for Java's application, streams", o.protocol)
	case o.application && (o.brokers == "" || o.state == ""):
		return "-application needs -brokers and -state"
	case !o.application && o.java == "":
		return "-java is missing: the judge is Java's"
	case o.broker > 0 && o.brokers != "":
		return "-kill-broker is for the bundled broker, and -brokers names another"
	case o.wrong && (o.client != "go" || o.guarantee != exactlyOnce):
		return "-wrong is for our application, judged exactly once"
	case o.kills < 0 || o.broker < 0 || o.first < 1 || o.second < 100 || o.seconds < 1:
		return "-kills and -kill-broker are not negative, -first and -seconds at least 1, -second at least 100"
	}
	return ""
}

# Moldau's verbs. `make` alone lists them.

# Go 1.27 is fetched by an older Go, also where the environment says GOTOOLCHAIN=local.
export GOTOOLCHAIN := auto
export CGO_ENABLED := 0

BIN         := bin
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What the race detector watches: the rooms where goroutines meet. In the others internal/lint forbids them.
RACE ?= . ./internal/broker/... ./internal/cluster/... ./internal/restore ./internal/tier ./internal/worker \
	./serde/... ./state ./stream ./streamtest ./examples/...
# How many sequences of requests kafka-fuzz compares.
SEQUENCES ?= 300
# How long each fuzz target runs.
FUZZTIME ?= 10s
# How often verify kills the application.
KILLS ?= 20
# How many recordings live runs.
LIVE ?= 60
# How many rounds of work and strikes check-broker judges, how long each takes, and how many crashes of the log it adds.
ROUNDS ?= 2
ROUND ?= 60s
CRASHES ?= 2000
# How long soak takes, in minutes.
SOAK_MINUTES ?= 30
# Records per second of the demo, slow enough to watch.
RATE ?= 5000

.DEFAULT_GOAL := help
.PHONY: help demo test race lint fuzz soak bench bench-broker check-broker verify conformance live kafka-test kafka-fuzz kafka-verify interop judges takeover clean

help: ## list the verbs
	@printf 'usage: make VERB\n\n'
	@awk -F ' ## ' '/^[a-z-]+:.*## /{sub(/:.*/, "", $$1); printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## real flights on the bundled broker, to watch in a browser; Ctrl-C stops, a second run continues (RATE=5000)
	@[ -x $(BIN)/flights ] || echo 'building, which takes a minute or two the first time'
	@go build -o $(BIN)/flights ./examples/flights
	@exec $(BIN)/flights -rate $(RATE) $(ARGS)

test: ## every test, 5 minutes at most
	go test -timeout 5m ./...

race: ## tests under the race detector; needs a C compiler
	@scripts/race.sh $(RACE)

lint: ## gofmt, vet, staticcheck, and the house rules of internal/lint
	@bad=$$("$$(go env GOROOT)/bin/gofmt" -l .); test -z "$$bad" || { printf 'not as gofmt writes it:\n%s\n' "$$bad"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	go test -count=1 ./internal/lint

fuzz: ## every fuzz target in turn (FUZZTIME=10s each)
	@scripts/fuzz.sh $(FUZZTIME)

soak: ## the long forms: many kills and crashes, all models again and again, conformance, fuzzing; ends with a table (SOAK_MINUTES=30)
	@scripts/soak.sh $(SOAK_MINUTES)

bench: ## CPU, throughput and state beside a hand-written loop, medians of several runs (ARGS='-help')
	@go build -o $(BIN)/benchmarks ./benchmarks
	@$(BIN)/benchmarks $(ARGS)

bench-broker: ## the bundled broker beside a null broker, and Apache Kafka where there is Java (ARGS='-help')
	@go build -o $(BIN)/ ./cmd/moldau ./benchmarks/broker
	@case "$$(scripts/kafka/run.sh true)" in skipped*) $(BIN)/broker $(ARGS);; *) scripts/kafka/run.sh $(BIN)/broker $(ARGS);; esac

check-broker: ## the broker struck while clients work, their histories judged, and bugs planted for the judge to find (ROUNDS=2 ROUND=60s CRASHES=2000)
	MOLDAU_ROUNDS=$(ROUNDS) MOLDAU_ROUND=$(ROUND) go test -count=1 -v -timeout 12h -run 'TestHistories|TestPlantedBugs' ./internal/broker
	MOLDAU_CRASHES=$(CRASHES) go test -count=1 -v -timeout 2h -run 'TestCrash$$' ./internal/broker/log

verify: ## flights killed KILLS=20 times, then every record checked; and the check shown to catch doubling
	go run ./examples/flights/verify -kills $(KILLS) $(ARGS)
	go run ./examples/flights/verify -kills $(KILLS) -guarantee at-least-once -expect doubled $(ARGS)

conformance: ## topologies against recordings of Kafka Streams, record for record (MOLDAU_VECTORS=directory, else the sample kept here)
	@scripts/conformance.sh

live: ## LIVE=60 of those recordings on the real runtime and the bundled broker: restarts, partitions, kills; 0: all
	@MOLDAU_LIVE=$(LIVE) scripts/live.sh

kafka-test: ## the tests against Apache Kafka, which comes from Maven; needs a JDK and mvn
	@scripts/kafka/run.sh go test -count=1 -timeout 5m ./internal/cluster/franz

kafka-fuzz: ## the same random requests to the bundled broker and to Apache Kafka, which must answer alike (SEQUENCES=300)
	@MOLDAU_SEQUENCES=$(SEQUENCES) scripts/kafka/run.sh go test -count=1 -timeout 60m -run TestDifferential ./internal/broker

kafka-verify: ## verify on Apache Kafka
	@scripts/kafka/run.sh sh -c 'go run ./examples/flights/verify -kills $(KILLS) -brokers $$MOLDAU_KAFKA $(ARGS)'

interop: ## clients in other languages against the bundled broker and against Apache Kafka; fetches them (ARGS='-bundled kafkajs sarama')
	@scripts/interop/run.sh $(ARGS)

judges: ## our applications, killed again and again, judged by Kafka Streams' own system tests; needs a JDK and mvn (JUDGES_FULL=1: at full length; ARGS='smoke/eos/moldau')
	@scripts/judges/run.sh $(ARGS)
takeover: ## Kafka Streams and ours take over applications from each other; needs a JDK and mvn (ARGS='windows joins')
	@scripts/takeover/run.sh $(ARGS)

clean: ## remove bin/
	rm -rf $(BIN)

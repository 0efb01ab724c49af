package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker"
	"github.com/moldau/moldau/internal/broker/auth"
)

// cluster is a broker to administer.
func cluster(t *testing.T) *broker.Broker {
	b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir(), Durability: 2, Logger: slog.New(slog.DiscardHandler), ACLs: true, SuperUsers: []string{"User:root"},
		Listeners: []broker.Listener{{Address: "127.0.0.1:0", SASL: []auth.Mechanism{auth.ScramSHA256}}}, Users: map[string]string{"root": "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// do runs the program and returns what it prints.
func do(t *testing.T, b *broker.Broker, code int, line string) (out, errs string) {
	t.Helper()
	args := strings.Fields(line)
	args = append(args, "-brokers", b.Addr(), "-sasl", "scram-sha-256", "-user", "root")
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), args, strings.NewReader("hidden\n"), &stdout, &stderr); got != code {
		t.Fatalf("%s: exit code %d, want %d\n%s%s", line, got, code, &stdout, &stderr)
	}
	return stdout.String(), stderr.String()
}

func TestAdministration(t *testing.T) {
	t.Setenv("MOLDAU_PASSWORD", "secret")
	b := cluster(t)
	do(t, b, 0, "topic create orders payments -partitions 2 -config retention.ms=1000")
	if out, _ := do(t, b, 1, "topic create orders fresh"); !strings.Contains(out, "TOPIC_ALREADY_EXISTS") || !strings.Contains(out, "done") {
		t.Errorf("one of two topics exists:\n%s", out)
	}
	do(t, b, 0, "topic delete fresh")
	do(t, b, 0, "topic grow payments 5")
	do(t, b, 0, "topic config orders retention.ms=2000 segment.ms=")
	if out, _ := do(t, b, 0, "topic config orders"); !strings.Contains(out, "2000") || !strings.Contains(out, "DYNAMIC_TOPIC_CONFIG") {
		t.Errorf("settings:\n%s", out)
	}
	var topics []struct {
		Topic                string
		Partitions, Replicas int
	}
	out, _ := do(t, b, 0, "topic list -o json")
	if err := json.Unmarshal([]byte(out), &topics); err != nil || len(topics) != 2 || topics[1].Topic != "payments" || topics[1].Partitions != 5 || topics[1].Replicas != 1 {
		t.Errorf("%v: %s", err, out)
	}

	cl, err := kgo.NewClient(kgo.SeedBrokers("moldau.invalid:9092"), kgo.Dialer(b.Dial), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte("line\nbreak"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("x")}}}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()
	if out, _ := do(t, b, 0, "log records orders -from -2"); strings.Count(out, `line\nbreak`) != 2 || !strings.Contains(out, `h="x"`) {
		t.Errorf("records:\n%s", out)
	}
	out, _ = do(t, b, 0, "log records orders -from -1 -o json")
	var records []struct {
		Key, Value string
		Headers    []struct{ Key, Value string }
	}
	if err := json.Unmarshal([]byte(out), &records); err != nil || len(records) != 1 || records[0].Key != "k" || records[0].Value != "line\nbreak" || records[0].Headers[0].Value != "x" {
		t.Errorf("%v: records in JSON:\n%s", err, out)
	}
	if out, err := json.Marshal([]text{nil, {}, {0xff, 0}}); err != nil || string(out) != `[null,"",{"base64":"/wA="}]` {
		t.Errorf("bytes in JSON: %s, %v", out, err)
	}
	do(t, b, 0, "log trim orders 0 1")
	if out, _ := do(t, b, 0, "topic describe orders"); !strings.Contains(strings.Join(strings.Fields(out), " "), "orders 0 1 [1] 1 3") {
		t.Errorf("after a trim:\n%s", out)
	}
	if out, _ := do(t, b, 0, "log size"); !strings.Contains(out, "payments") {
		t.Errorf("sizes:\n%s", out)
	}

	do(t, b, 0, "group reset readers orders -to latest")
	do(t, b, 0, "group reset readers orders -to 2 -partition 0")
	if out, _ := do(t, b, 0, "group describe readers"); !strings.Contains(strings.Join(strings.Fields(out), " "), "orders 0 2 3 1") {
		t.Errorf("group:\n%s", out)
	}
	if out, _ := do(t, b, 0, "group list"); !strings.Contains(out, "readers") {
		t.Errorf("groups:\n%s", out)
	}
	do(t, b, 0, "group delete readers")
	do(t, b, 1, "group describe readers")

	join := kmsg.NewPtrStreamsGroupHeartbeatRequest()
	process := "process"
	join.Group, join.MemberID, join.ProcessID, join.RebalanceTimeoutMillis = "app", "thread", &process, 1000
	join.ActiveTasks, join.StandbyTasks, join.WarmupTasks = []kmsg.TaskIDs{}, []kmsg.TaskIDs{}, []kmsg.TaskIDs{}
	join.Topology = &kmsg.StreamsGroupHeartbeatRequestTopology{Epoch: 1, Subtopologies: []kmsg.StreamsGroupHeartbeatRequestTopologySubtopology{
		{SubtopologyID: "0", SourceTopics: []string{"orders"}}}}
	app, err := kgo.NewClient(kgo.SeedBrokers("moldau.invalid:9092"), kgo.Dialer(b.Dial))
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	if resp, err := join.RequestWith(t.Context(), app.SeedBrokers()[0]); err != nil || resp.ErrorCode != 0 {
		t.Fatal(resp, err)
	}
	if out, _ := do(t, b, 0, "group describe app"); !strings.Contains(strings.Join(strings.Fields(out), " "), "orders 1 - 0 - thread") {
		t.Errorf("group of the streams protocol:\n%s", out)
	}

	tx, err := kgo.NewClient(kgo.SeedBrokers("moldau.invalid:9092"), kgo.Dialer(b.Dial), kgo.TransactionalID("tx"))
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := tx.ProduceSync(t.Context(), &kgo.Record{Topic: "payments"}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if out, _ := do(t, b, 0, "txn list -state Ongoing"); !strings.Contains(out, "tx") {
		t.Errorf("transactions:\n%s", out)
	}
	if out, _ := do(t, b, 0, "txn describe tx"); !strings.Contains(out, "payments/") {
		t.Errorf("transaction:\n%s", out)
	}
	do(t, b, 0, "txn abort tx")
	if out, _ := do(t, b, 0, "txn list -state Ongoing"); strings.Contains(out, "tx") {
		t.Errorf("after an abort:\n%s", out)
	}

	do(t, b, 0, "user set bob -new-password-file -")
	if out, _ := do(t, b, 0, "user list"); !strings.Contains(out, "bob") || strings.Contains(out, "hidden") {
		t.Errorf("users:\n%s", out)
	}
	do(t, b, 0, "acl create -topic ord -prefixed -operation read -operation describe -allow User:bob")
	do(t, b, 0, "acl create -cluster -operation alter -deny User:bob")
	if out, _ := do(t, b, 0, "acl list"); strings.Count(out, "User:bob") != 3 || !strings.Contains(out, "prefixed") {
		t.Errorf("rules:\n%s", out)
	}
	if out, _ := do(t, b, 0, "acl list -topic ord -prefixed"); strings.Count(out, "User:bob") != 2 {
		t.Errorf("rules of a topic:\n%s", out)
	}
	do(t, b, 2, "acl delete")
	do(t, b, 2, "acl create -topic x -operation read")
	do(t, b, 0, "acl delete -deny User:bob")
	if out, _ := do(t, b, 0, "acl list"); strings.Count(out, "User:bob") != 2 {
		t.Errorf("rules after a deletion:\n%s", out)
	}
	do(t, b, 0, "user delete bob")
	do(t, b, 0, "topic delete orders payments")
	for line, want := range map[string]string{
		"topic":                        "verb",
		"topic lst":                    "lst",
		"topic delete":                 "TOPIC",
		"topic list -o yaml":           "yaml",
		"group reset g t -to tomorrow": "tomorrow",
		"acl create -topic t -operation fly -allow User:x": "fly",
	} {
		if _, errs := do(t, b, 2, line); !strings.Contains(errs, want) {
			t.Errorf("%s: %q is not in %s", line, want, errs)
		}
	}
	t.Setenv("MOLDAU_PASSWORD", "wrong")
	if _, errs := do(t, b, 1, "topic list"); strings.Contains(errs, "wrong") {
		t.Errorf("a wrong password is told: %s", errs)
	}
}

func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"to":                    "topic",
		"topic de":              "delete describe",
		"topic create x -repl":  "-replicas",
		"broker -durab":         "-durability",
		"completion -":          "",
		"nonsense -":            "",
		"acl create -oper":      "-operation",
		"group describe -brok":  "-brokers",
		"broker -listen x -lis": "-listen",
	} {
		var out bytes.Buffer
		if run(t.Context(), append([]string{"__complete"}, strings.Split(line, " ")...), nil, &out, &out) != 0 {
			t.Errorf("%s fails", line)
		}
		for _, w := range strings.Fields(want) {
			if !strings.Contains(out.String(), w+"\n") {
				t.Errorf("%s: %q is not in %q", line, w, &out)
			}
		}
		if want == "" && out.Len() > 0 {
			t.Errorf("%s: %q", line, &out)
		}
	}
	for shell := range scripts() {
		var out bytes.Buffer
		if run(t.Context(), []string{"completion", shell}, nil, &out, &out) != 0 || !strings.Contains(out.String(), "__complete") {
			t.Errorf("%s: %s", shell, &out)
		}
	}
	if run(t.Context(), []string{"completion", "cmd.exe"}, nil, os.Stdout, &bytes.Buffer{}) != 2 {
		t.Error("a shell that is not known")
	}
}

func TestReadSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := readSecret(nil, file); s != "s" || err != nil {
		t.Errorf("%q %v", s, err)
	}
	if _, err := readSecret(strings.NewReader("\n"), "-"); err == nil {
		t.Error("an empty password")
	}
}

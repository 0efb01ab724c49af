package conformance

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

func (in *interpreter) suppress(step Step) any {
	name := step.text("name") + "-store"
	t, windowed := in.objects[step.in(0)].(wtable)
	if step.text("until") == "windowCloses" {
		if !windowed {
			panic(unsupported("suppress until windows close of " + step.in(0)))
		}
		return stream.FlattenTable(stream.WindowTable(t).UntilClosed(state.NewWindowBuffer[text, text](name, nullable, nullable)))
	}
	s := stream.UntilTime(step.duration("limitMs"))
	switch {
	case step.has("maxRecords"):
		s = s.MaxRecords(int(step.number("maxRecords"))).EmitEarly()
	case step.has("maxBytes"):
		s = s.MaxBytes(step.number("maxBytes")).EmitEarly()
	case step.has("failAbove"):
		s = s.MaxRecords(int(step.number("failAbove"))).FailWhenFull()
	}
	if windowed {
		return t.Suppress(state.NewSuppressBuffer(name, in.windowKeys(step), serde.Serde[text](nullable)), s)
	}
	return get[ktable](in, step.in(0)).Suppress(state.NewSuppressBuffer[text, text](name, nullable, nullable), s)
}

// windowKeys is how the keys of a windowed table are written: as the nearest windowing above says.
func (in *interpreter) windowKeys(step Step) serde.Serde[wkey] {
	for step.text("op") != "windowedBy" {
		step = in.step(step.in(0))
	}
	w := step.sub("window")
	switch w.text("type") {
	case "session":
		return window.SessionKey[text](nullable)
	case "unlimited":
		return window.TimeKey[text](nullable, window.Forever)
	}
	return window.TimeKey[text](nullable, w.duration("sizeMs")+w.duration("diffMs"))
}

// suppresses says whether a changelog is that of a suppression.
func (v *Vector) suppresses(changelog string) bool {
	return slices.ContainsFunc(v.Spec.Steps, func(s Step) bool {
		return s.text("op") == "suppress" && changelog == "oracle-"+s.text("name")+"-store-changelog"
	})
}

// withoutOrigins leaves out of a suppression's changelog from where the records came. Java's record cache gives rows on as those of
// the last record that changed them; here what comes once per commit is no record's alone.
func withoutOrigins(lines []string) (all []string) {
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		b, err := hex.DecodeString(value)
		if err != nil || len(b) < 24 { // time, offset, length of the topic, topic, partition
			all = append(all, line)
			continue
		}
		rest := min(24+int(binary.BigEndian.Uint32(b[16:])), len(b))
		all = append(all, key+"="+hex.EncodeToString(b[:8])+hex.EncodeToString(b[rest:]))
	}
	return all
}

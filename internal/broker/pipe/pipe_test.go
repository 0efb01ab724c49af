package pipe

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStreamKeepsEveryByte(t *testing.T) {
	client, server := New()
	want := make([]byte, 5<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range want {
		want[i] = byte(r.Uint32())
	}
	go func() {
		defer client.Close()
		r := rand.New(rand.NewPCG(3, 4))
		for rest := want; len(rest) > 0; {
			n := min(1+r.IntN(200_000), len(rest))
			if _, err := client.Write(rest[:n]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
		}
	}()
	var got bytes.Buffer
	buf := make([]byte, 70_000)
	for {
		n, err := server.Read(buf[:1+r.IntN(len(buf)-1)])
		got.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	if !bytes.Equal(got.Bytes(), want) {
		t.Fatalf("%d bytes differ from the %d written", got.Len(), len(want))
	}
}

func TestDeadlines(t *testing.T) {
	client, server := New()
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 10)
	client.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := client.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read past its deadline: %v", err)
	}
	var ne net.Error
	if _, err := client.Read(buf); !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("read after its deadline: %v", err)
	}
	client.SetReadDeadline(time.Time{})
	server.Write([]byte("hello"))
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("read without deadline: %q, %v", buf[:n], err)
	}
	client.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := client.Write(make([]byte, 2*maxSize)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("write past its deadline: %v", err)
	}
}

// A deadline set while a read waits ends that read.
func TestDeadlineWakesReader(t *testing.T) {
	client, server := New()
	defer server.Close()
	defer client.Close()
	done := make(chan error)
	go func() {
		_, err := client.Read(make([]byte, 1))
		done <- err
	}()
	client.SetReadDeadline(time.Now())
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestCloseWakesBothEnds(t *testing.T) {
	client, server := New()
	done := make(chan error)
	go func() {
		_, err := server.Read(make([]byte, 1))
		done <- err
	}()
	client.Close()
	if err := <-done; err != io.EOF {
		t.Fatalf("the other end: %v", err)
	}
	if _, err := server.Write([]byte("x")); err == nil {
		t.Fatal("a write to a closed end succeeds")
	}
	server.Close()
}

func BenchmarkPingPong(b *testing.B) {
	client, server := New()
	defer client.Close()
	go func() {
		defer server.Close()
		buf := make([]byte, 100)
		for {
			if _, err := io.ReadFull(server, buf); err != nil {
				return
			}
			server.Write(buf)
		}
	}()
	buf := make([]byte, 100)
	for b.Loop() {
		client.Write(buf)
		if _, err := io.ReadFull(client, buf); err != nil {
			b.Fatal(err)
		}
	}
}

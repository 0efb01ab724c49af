package franz

import (
	"context"

	"github.com/moldau/moldau/internal/cluster"
)

// reader implements cluster.Reader.
type reader struct{ f *fetcher }

// Reader makes a reader of partitions outside any group.
func (c *Cluster) Reader() (cluster.Reader, error) {
	f, err := newFetcher(c)
	if err != nil {
		return nil, err
	}
	return reader{f}, nil
}

func (r reader) Assign(from map[cluster.TP]int64) {
	r.f.mu.Lock()
	var gone []cluster.TP
	for tp := range r.f.at {
		if _, ok := from[tp]; !ok {
			gone = append(gone, tp)
		}
	}
	r.f.mu.Unlock()
	r.f.remove(gone)
	r.f.seek(from)
}

func (r reader) Poll(ctx context.Context) ([]cluster.Batch, error) { return r.f.poll(ctx) }
func (r reader) Position(tp cluster.TP) (int64, bool)              { return r.f.position(tp) }
func (r reader) Close()                                            { r.f.close() }

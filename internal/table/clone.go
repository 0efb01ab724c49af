package table

type cloner[V any] interface{ clone(V) (V, error) }

// Clone is a value that nobody else has, for an aggregate that starts from another one.
func (w *Windows[K, V]) Clone(v V) (V, error) { return w.windows.(cloner[V]).clone(v) }

// Clone is a value that nobody else has, for an aggregate that is merged with another one.
func (s *Sessions[K, V]) Clone(v V) (V, error) { return s.sessions.(cloner[V]).clone(v) }

func (s *panes[K, V, S, C]) clone(v V) (V, error) {
	r, ok := any(s.rep).(*coded[V])
	if !ok {
		return v, nil
	}
	b, err := r.serde.Encode([]byte{}, v) // nil would be null
	if err != nil {
		return v, s.wrap("copying a value", err)
	}
	return r.serde.Decode(b)
}

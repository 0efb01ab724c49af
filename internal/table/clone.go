package table

// Clone is a value that nobody else has, for an aggregate that starts from another one.
func (w *Windows[K, V]) Clone(v V) (V, error) {
	return w.windows.(interface{ clone(V) (V, error) }).clone(v)
}

func (s *windowed[K, V, C]) clone(v V) (V, error) {
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

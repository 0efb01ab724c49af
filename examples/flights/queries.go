package main
import ("context";"time";"github.com/moldau/moldau")
type stores struct{ app *moldau.App }
func (s *stores) Known(ctx context.Context, k FlightKey) ([]Flight, error) { return nil,nil }
func (s *stores) Route(ctx context.Context, name string) (Tally, bool, error) { return Tally{},false,nil }
func (s *stores) Hours(ctx context.Context, iata string, from, to time.Time) (HoursAnswer, bool, error) { return HoursAnswer{},false,nil }
func (s *stores) Leaderboard(ctx context.Context) (Leaderboard, error) { return Leaderboard{Complete:true},nil }

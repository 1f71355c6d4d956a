package notify

type devices struct{ s *Service }

func newDevices(s *Service) (*devices, error) { return &devices{s}, nil }

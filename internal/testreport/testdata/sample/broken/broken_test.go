package broken

func TestBroken(t *testing.T) {}

package wordtable

// Projector is what turns an image into tokens, as /api/show says it of a file of its own.
//
//nolint:tagliatelle // the names are those of a GGUF file
type Projector struct {
	Type       string `json:"clip.projector_type"`
	VisionType string `json:"clip.vision.projector_type"`
	ImageSize  int    `json:"clip.vision.image_size"`
	PatchSize  int    `json:"clip.vision.patch_size"`
	Scale      int    `json:"clip.vision.projector.scale_factor"`
	MostTiles  int    `json:"clip.vision.preproc_max_tiles"`
	Pinpoints  []int  `json:"clip.vision.image_grid_pinpoints"` // widths and heights that tiles may cover
	HasAudio   bool   `json:"clip.has_audio_encoder"`
}

// gemma3 is the same of a model that has its projector within, as Ollama's own files of Gemma 3.
//
//nolint:tagliatelle // the names are those of a GGUF file
type gemma3 struct {
	ImageSize int  `json:"gemma3.vision.image_size"`
	PatchSize int  `json:"gemma3.vision.patch_size"`
	HasAudio  bool `json:"gemma3.has_audio_encoder"`
}

const (
	imageMarks    = 32 // what may stand around an image or a tile of it
	gemmaScale    = 4  // patches of each side that become one token
	internvlTiles = 12 // where the file does not say it
	maxImage      = 1 << 20
	maxSide       = 1 << 16
)

// imageTokens returns the most tokens that an image becomes, 0 if that can't be said. It can of
// projectors that bring each image, or each tile of it, to one size; those that keep its shape
// make as many of a narrow image as the context takes.
func (s *Show) imageTokens() int {
	p := s.Projector
	if p.Type == "" && p.VisionType == "" {
		g := s.Vocabulary.gemma3
		p = Projector{Type: "gemma3", ImageSize: g.ImageSize, PatchSize: g.PatchSize, HasAudio: g.HasAudio}
	}
	kind := p.Type
	if p.VisionType != "" {
		kind = p.VisionType
	}
	tiles, scale := 1, max(1, p.Scale)
	switch kind {
	case "gemma3":
		if p.Scale == 0 {
			scale = gemmaScale
		}
	case "internvl":
		tiles = p.MostTiles
		if tiles == 0 {
			tiles = internvlTiles
		}
		tiles++ // the whole image is one more
	case "mlp":
		scale = 1
		if tiles = p.mostPinned(); tiles > 0 {
			tiles++
		}
	default:
		return 0
	}
	isSane := p.PatchSize > 0 && p.ImageSize >= p.PatchSize && p.ImageSize <= maxSide && tiles > 0 && tiles <= maxSide
	if p.HasAudio || !isSane || scale > maxSide {
		return 0
	}
	side := p.ImageSize / p.PatchSize
	tokens := tiles * (ceil(side*side, scale*scale) + imageMarks)
	if tokens > maxImage {
		return 0
	}
	return tokens
}

// mostPinned returns how many tiles the largest of the pinpoints has.
func (p *Projector) mostPinned() (most int) {
	if p.ImageSize <= 0 {
		return 0
	}
	for i := 0; i+1 < len(p.Pinpoints); i += 2 {
		width, height := p.Pinpoints[i], p.Pinpoints[i+1]
		if width <= 0 || width > maxSide || height <= 0 || height > maxSide {
			return -1
		}
		most = max(most, ceil(width, p.ImageSize)*ceil(height, p.ImageSize))
	}
	return most
}

func ceil(n, by int) int { return (n + by - 1) / by }

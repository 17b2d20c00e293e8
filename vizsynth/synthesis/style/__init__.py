"""Pictures in the style of another."""

from vizsynth.synthesis.style.gatys import enlarge as enlarge

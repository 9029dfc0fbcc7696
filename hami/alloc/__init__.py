"""The life of an allocation: asked, admitted, placed, recorded, granted. Decisions only; nothing here does I/O."""

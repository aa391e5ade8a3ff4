"""Operations on tenants, keys and limits, shared by commands, launcher and tests."""

"""Manifolds whose lengths, geodesics and curvatures are known."""

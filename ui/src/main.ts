// Mounts the page. Nothing else happens here.
import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import './map.css';

const target = document.getElementById('app');
if (target === null) throw new Error('index.html has no element #app');
mount(App, { target });
